"""The rules of claims, alone: what they let in is right, and what they keep out would be wrong."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.claim import READ, WRITE, Claim, refusal
from chalicelib.domain.volume import ACCESS_MODES, Capability, Definition, Volume

FILE_SYSTEM = "file-system"
READ_ONLY = {"single-node-reader-only", "multi-node-reader-only"}
MODES = st.sampled_from(ACCESS_MODES)


def fits(access_mode: str, modes: list[str]) -> bool:
    """Whether these claims may be on one volume at once: CSI's words for the access modes, as Nomad counts them."""
    writers = modes.count(WRITE)
    if access_mode in READ_ONLY and writers:
        return False
    if access_mode.startswith("single-node"):
        return len(modes) <= 1
    return writers <= 1 if access_mode == "multi-node-single-writer" else True


def volume_with(access_mode: str, modes: list[str], capabilities: set[str]) -> Volume:
    return Volume(
        "default",
        "v",
        "p",
        definition=Definition(capabilities=tuple(Capability(mode, FILE_SYSTEM) for mode in sorted(capabilities))),
        access_mode=access_mode if modes else "",
        attachment_mode=FILE_SYSTEM if modes else "",
        readers=modes.count(READ),
        writers=modes.count(WRITE),
    )


STEPS = st.lists(st.tuples(st.sampled_from([READ, WRITE]), MODES, st.booleans()), max_size=30)


@settings(max_examples=2000, deadline=None)
@given(st.sets(MODES, min_size=1), STEPS)
def test_a_claim_is_let_in_if_and_only_if_it_fits(capabilities: set[str], steps: list[tuple[str, str, bool]]) -> None:
    in_force, held = "", list[str]()
    for mode, access_mode, leaves in steps:
        if leaves and held:
            held.pop()
            continue
        claim = Claim("default", "v", "a", "n", mode, access_mode, FILE_SYSTEM)
        volume = volume_with(in_force, held, capabilities)
        wanted = (
            access_mode in capabilities and (not held or access_mode == in_force) and fits(access_mode, [*held, mode])
        )
        assert (refusal(volume, claim) is None) is wanted
        if wanted:
            in_force = access_mode
            held.append(mode)


@given(MODES, MODES)
def test_block_and_file_system_do_not_mix(access_mode: str, other: str) -> None:
    both = (Capability(access_mode, FILE_SYSTEM), Capability(other, "block-device"))
    volume = replace(volume_with(access_mode, [READ], {access_mode}), definition=Definition(capabilities=both))
    assert refusal(volume, Claim("default", "v", "a", "n", READ, other, "block-device")) is not None
