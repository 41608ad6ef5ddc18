"""`lockstep lock` with the real uv, over a folder of wheels instead of a package index."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from lockstep.errors import ConfigError, RefusedError
from lockstep.operations import lock as lock_module
from lockstep.operations.lock import make_lock
from lockstep.rules.requirements import bare, lock_problems, requirement_lines
from tests.integration.deployed import lockstep

REQUIREMENTS = ("mlflow==3.17.2", "model-code==1.0")


def wheel(folder: Path, name: str, version: str, *needs: str) -> str:
    """A package with nothing in it; gives its archive's SHA-256."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", metadata)
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What uv finds, by name and version: SHA-256 of the archive."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    packages = {
        ("mlflow", "3.17.2"): ("fastapi", "uvicorn"),
        ("model-code", "1.0"): ("deep>=1", "windows-only; sys_platform == 'win32'"),
        ("deep", "1.5"): (),
        ("deep", "1.4"): (),
        ("fastapi", "0.150"): (),
        ("uvicorn", "0.54"): (),
        ("google-cloud-storage", "3.5"): (),
    }
    found = {f"{name}=={version}": wheel(folder, name, version, *needs) for (name, version), needs in packages.items()}
    (tmp_path / "uv.toml").write_text(f'no-index = true\nfind-links = ["{folder}"]\n')
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return found


def test_a_lock_holds_all_that_is_needed_with_hashes(wheels: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "made" / "requirements.lock"
    lines = make_lock(REQUIREMENTS, "", "3.11.9", "linux/amd64", out)
    assert requirement_lines(out.read_text()) == lines
    assert [bare(line) for line in lines] == sorted(set(wheels) - {"deep==1.4"})
    assert all(f"--hash=sha256:{wheels[bare(line)]}" in line for line in lines)
    assert lock_problems(lines, REQUIREMENTS, "3.11.9", "linux/amd64") == ()
    assert "--" not in "".join(map(bare, lines))
    assert str(tmp_path) not in out.read_text()
    before = out.read_bytes()
    make_lock(REQUIREMENTS, "", "3.11.9", "linux/amd64", out)
    assert out.read_bytes() == before


@pytest.mark.usefixtures("wheels")
def test_what_has_no_solution_is_told_in_uvs_words(tmp_path: Path) -> None:
    out = tmp_path / "requirements.lock"
    with pytest.raises(RefusedError, match=r"no solution for Python 3\.11\.9 on linux/amd64: (.|\n)*lost"):
        make_lock(("lost==1.0",), "3.17.2", "3.11.9", "linux/amd64", out)
    with pytest.raises(RefusedError, match="without one exact version: deep>=1"):
        make_lock(("deep>=1",), "3.17.2", "3.11.9", "linux/amd64", out)
    with pytest.raises(RefusedError, match="not known"):
        make_lock(REQUIREMENTS, "", "3.11.9", "darwin/arm64", out)
    assert not out.exists()


def test_without_uv_the_way_to_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        lock_module.make_lock(REQUIREMENTS, "", "3.11.9", "linux/amd64", tmp_path / "requirements.lock")
    assert "pip install uv" in caught.value.hint


def test_the_command_needs_no_server_for_a_folder(wheels: dict[str, str], tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    described = {"flavors": {"python_function": {}}, "mlflow_version": "3.17.2"}
    (model / "MLmodel").write_text(yaml.safe_dump(described))
    (model / "python_env.yaml").write_text("python: 3.11.9\n")
    (model / "requirements.txt").write_text("model-code==1.0\n")
    out = tmp_path / "requirements.lock"
    ended = lockstep("lock", model, "-o", out, "--json")
    assert ended.status == 0, ended
    assert ended.document == {"lock": str(out), "packages": len(wheels) - 1}
    assert "mlflow==3.17.2" in out.read_text()
