from __future__ import annotations

import pytest

from lockstep.rules.requirements import lock_problems, package, pins, requirement_lines, unhashed, unpinned

ZERO, ONE = f"--hash=sha256:{'0' * 64}", f"--hash=sha256:{'1' * 64}"


@pytest.mark.parametrize(
    ("line", "pinned"),
    [
        ("numpy==2.4.6", True),
        ("scikit-learn==1.9.1 ; python_version >= '3.11'", True),
        ("mlflow[extras]==3.17.2", True),
        (f"numpy==2.4.6 {ZERO}", True),
        ("numpy", False),
        ("numpy>=2", False),
        ("numpy==2.*", False),
        ("git+https://example.org/x.git", False),
        ("-r other.txt", False),
    ],
)
def test_only_an_exact_version_is_pinned(line: str, pinned: bool) -> None:
    assert (unpinned((line,)) == ()) is pinned


def test_a_requirements_file_is_read_as_pip_reads_it() -> None:
    text = f"# head\n\na==1 \\\r\n  {ZERO} \\\n  {ONE}\nb==2  # why\nb==2\n"
    assert requirement_lines(text) == (f"a==1 {ZERO} {ONE}", "b==2")


def test_every_archive_needs_a_whole_hash() -> None:
    lines = (f"a==1 {ZERO}", "b==2", "c==3 --hash=sha256:abc", f"d==4 {ZERO} --hash=md5:abc", f"e==5 {ZERO} {ONE}")
    assert unhashed(lines) == lines[1:4]


@pytest.mark.parametrize("line", ["Foo_Bar==1", "foo.bar[x]==1", "foo-bar ; python_version > '3'", "FOO--BAR>=1"])
def test_a_package_has_one_name(line: str) -> None:
    assert package(line) == "foo-bar"


def test_a_lines_marker_decides_whether_it_counts() -> None:
    lines = (
        "numpy==2.4.6 ; python_full_version < '3.12'",
        "numpy==2.5.5 ; python_full_version >= '3.12'",
        "pywin32==1 ; sys_platform == 'win32'",
        "arm==1 ; platform_machine == 'aarch64'",
    )
    assert pins(lines, "3.11.9", "linux/amd64") == {"numpy": "2.4.6"}
    assert pins(lines, "3.12.1", "linux/arm64") == {"numpy": "2.5.5", "arm": "1"}
    assert pins(lines, "3.12", "linux/amd64") == {"numpy": "2.5.5"}


LOCK = (f"numpy==2.4.6 {ZERO}", f"scikit-learn==1.9.1 {ZERO} {ONE}", f"joblib==1.5.0 {ONE}")
REQUIREMENTS = ("Scikit_Learn==1.9.1", "numpy==2.4.6")


def test_a_lock_that_pins_what_the_model_pins_and_more_is_right() -> None:
    assert lock_problems(LOCK, REQUIREMENTS, "3.11.9", "linux/amd64") == ()


@pytest.mark.parametrize(
    ("lock", "problem"),
    [
        ((), "it is empty"),
        (LOCK[1:], "numpy is not in it"),
        ((f"numpy==2.4.5 {ZERO}", *LOCK[1:]), "it has numpy==2.4.5, the model's requirements.txt numpy==2.4.6"),
        ((*LOCK, "scipy==1.16.0"), "without a whole hash: scipy==1.16.0"),
        ((*LOCK, f"scipy>=1.16.0 {ZERO}"), "without one exact version: scipy>=1.16.0"),
        (("--index-url https://ada:secret@packages.example", *LOCK), "it holds options: --index-url"),
    ],
)
def test_a_lock_that_cannot_be_the_environment_is_told_why(lock: tuple[str, ...], problem: str) -> None:
    assert lock_problems(lock, REQUIREMENTS, "3.11.9", "linux/amd64") == (problem,)
