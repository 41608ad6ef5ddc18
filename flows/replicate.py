"""Flow: bring a registered version to every cloud of its fleet."""

from __future__ import annotations

from prefect import flow

from flows.opening import explained, load_fleet, open_in_flow, parameters
from lockstep.operations.replicate import missing_replicas
from lockstep.operations.replicate import replicate as replicate_version
from lockstep.rules.measurement import NativeVersion
from tasks.artifacts import bullets, links, publish, records_table


def _run_name() -> str:
    given = parameters()
    return f"replicate {given.get('model')} {given.get('version')}"


@flow(name="lockstep-replicate", flow_run_name=_run_name)
@explained
def replicate(
    model: str,
    version: str,
    fleet: str = "default",
    repair: bool = False,
    dry_run: bool = False,
    accept_broken_seal: str = "",
) -> tuple[NativeVersion, ...]:
    """Copy a version's bytes to every cloud of the fleet, verify them there, and register it natively.

    What is there and right is not sent again, so a run that failed may simply be run again.

    Args:
        model: Name of the model in MLflow.
        version: Number (3), alias (challenger) or at least 8 digits of the digest.
        fleet: Name of the Fleet block.
        repair: Put the right bytes back where a replica was changed, instead of refusing.
        dry_run: Only say what is missing on which cloud.
        accept_broken_seal: Reason to go on with a version whose seal does not hold, when no other known-good one is
            intact; kept in the ledger.
    """
    opened = open_in_flow(load_fleet(fleet), model, "replicate")
    chosen = opened.registry.find(model, version)
    if dry_run:
        missing = missing_replicas(opened, chosen)
        text = bullets(missing) if missing else "Nothing: every cloud has it.\n"
        publish("replicate", model, f"# Dry run: {chosen} lacks\n\n{text}", f"dry run: {len(missing)} clouds lack it")
        return ()
    records = replicate_version(opened, chosen, repair=repair, accept_broken_seal=accept_broken_seal)
    publish(
        "replicate",
        model,
        f"# {chosen} is on every cloud\n\n{records_table(records)}\n{links(opened, chosen)}",
        f"{chosen} on {', '.join(record.cloud for record in records)}",
    )
    return records
