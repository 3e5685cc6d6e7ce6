"""Configs: what is right is read, what is wrong is named with its place and the nearest right thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slidebatch.config import EXCLUDES, RunConfig, apply, load, parse_override, schema
from slidebatch.config_faults import allowed, at, dotted
from slidebatch.errors import ConfigError
from slidebatch.normalise import NormaliseSpec
from slidebatch.shipped import configs

BASE = """\
name: mine
input:
  path: slides/
output:
  path: results/mine
"""


def _write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def _faults(folder: Path, text: str, overrides: list[str] | None = None) -> list[str]:
    """The sentences of the refusal, without the folder's name."""
    with pytest.raises(ConfigError) as error:
        load(_write(folder, text), overrides or [])
    return str(error.value).replace(f"{folder}/", "").splitlines()


@pytest.mark.parametrize("name", [n for n in configs() if n.count("/") == 1])
def test_shipped_configs_are_right(name: str) -> None:
    """Every shipped config of a run loads, and takes the overrides that the README promises."""
    config = load(name)
    assert config.model.name == "small_unet"
    changed = load(name, ["model=oracle", "output.path=elsewhere", "input.path=there"])
    assert (changed.model.name, changed.output.path, changed.input.path) == ("oracle", "elsewhere", "there")
    assert changed.input.sample is None


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    """Sections that a config leaves out have their defaults."""
    config = load(_write(tmp_path, BASE))
    assert config == RunConfig(name="mine", input={"path": "slides/"}, output={"path": "results/mine"})


PX = "expected a whole number above 0 (pixels) or auto"
CORE = "mine.yaml:7:3: tiling.core_px: found"
WRONG = {
    "tiling:\n  core: 1024\n": "mine.yaml:7:3: tiling.core: unknown key; did you mean tiling.core_px (pixels)? ",
    "tiling:\n  core_um: 1024\n": "mine.yaml:7:3: tiling.core_um: unknown key; "
    "did you mean tiling.core_px (pixels)? Known here: patch_px (pixels), core_px (pixels), largest_px (pixels), "
    "bundle.",
    "tiling:\n  core_px: 1024px\n": f"{CORE} '1024px'; {PX}: write the number alone, the key's name says "
    "that it is in pixels.",
    "tiling:\n  core_px: '1024'\n": f"{CORE} '1024'; {PX}.",
    "tiling:\n  core_px: 10.5\n": f"{CORE} 10.5; {PX}.",
    "tiling:\n  core_px: true\n": f"{CORE} true; {PX}.",
    "tiling:\n  core_px: -3\n": f"{CORE} -3; {PX}.",
    "tiling: {core_px: [1]}\n": f"mine.yaml:6:10: tiling.core_px: found [1]; {PX}.",
    "tiling: 5\n": "mine.yaml:6:1: tiling: found 5; expected a section with the keys patch_px, ",
    "tiling:\n": "mine.yaml:6:1: tiling: found nothing; expected a section with the keys ",
    "core_px: 1024\n": "mine.yaml:6:1: core_px: unknown key; did you mean tiling.core_px?",
    "tile_um: 3\n": "mine.yaml:6:1: tile_um: unknown key; ",
    "modle: x\n": "mine.yaml:6:1: modle: unknown key; did you mean model?",
    "model: {device: gpu}\n": "mine.yaml:6:9: model.device: found 'gpu'; expected one of auto, cpu, cuda.",
    "model: 7\n": "mine.yaml:6:1: model: found 7; expected a section with the keys name, weights",
    "decode:\n  seed_threshold: 1.5\n": "mine.yaml:7:3: decode.seed_threshold: found 1.5; "
    "expected a number of at least 0 and below 1.",
    "output: {path: a}\n": "mine.yaml:6:1: found duplicate key",
    "cluster: {kind: dask}\n": "mine.yaml:6:11: cluster.kind: found 'dask'; "
    "expected one of local, serial, cuda, slurm, pbs, existing.",
    "cluster: {kind: slurm}\n": "mine.yaml:6:1: cluster: kind slurm needs the number of jobs; set cluster.workers.",
    "cluster: {address: 'tcp://a:1'}\n": "mine.yaml:6:1: cluster: address is for kind existing, and kind is local; ",
    "cluster: {kind: existing}\n": "mine.yaml:6:1: cluster: kind existing takes one of address and scheduler_file; ",
    "a: [1\n": "mine.yaml:7:1: ",
    "1: x\n": "mine.yaml:6:1: 1: unknown key",
}


@pytest.mark.parametrize("text", WRONG)
def test_every_fault_has_place_key_and_remedy(tmp_path: Path, text: str) -> None:
    """A wrong line is refused in one sentence: file:line:column, the dotted key, and what is allowed."""
    faults = _faults(tmp_path, BASE + text)
    assert len(faults) == 1
    assert faults[0].startswith(WRONG[text])


def test_missing_keys_are_named(tmp_path: Path) -> None:
    """A missing key is named where it should stand."""
    assert _faults(tmp_path, "name: mine\noutput: {}\n") == [
        "mine.yaml:1:1: input: missing; expected " + allowed(at(schema(), ("input",)), schema()) + ".",
        "mine.yaml:2:1: output.path: missing; expected text.",
    ]


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    """Several faults are told together, one a line."""
    faults = _faults(tmp_path, BASE + "tiling: {core: 3, patch_px: no}\nmodel: {threads: 0}\n", ["decode.x=1"])
    assert [text.split(": ")[1] for text in sorted(faults)] == [
        "decode.x",
        "tiling.core",
        "tiling.patch_px",
        "model.threads",
    ]


@pytest.mark.parametrize(("text", "value"), [("1024", 1024), ("auto", "auto"), ("'auto'", "auto"), ("", None)])
def test_overrides_are_yaml(text: str, value: Any) -> None:
    """The value of --set is read as YAML."""
    assert parse_override(f"tiling.core_px={text}").value == value


def test_overrides_win_and_are_blamed(tmp_path: Path) -> None:
    """The last --set wins; a wrong one is blamed as it was written, not the file."""
    path = _write(tmp_path, BASE + "tiling: {core_px: 512}\n")
    assert load(path, ["tiling.core_px=1024", "tiling.core_px=2048"]).tiling.core_px == 2048
    assert _faults(tmp_path, BASE, ["tiling.core=3"])[0].startswith(
        "--set tiling.core=3: tiling.core: unknown key; did you mean tiling.core_px (pixels)?"
    )
    assert _faults(tmp_path, BASE, ["tiling.core_px=1024px"])[0].startswith("--set tiling.core_px=1024px: ")


@pytest.mark.parametrize("text", ["core", "=3", "a..b=3", "a b=3", "tiling.core_px=[1", "name.x=3", "--x=3"])
def test_malformed_overrides_are_refused(tmp_path: Path, text: str) -> None:
    """A --set that is no key=value, or that goes below a plain value, is refused and quoted."""
    faults = _faults(tmp_path, BASE, [text])
    assert len(faults) == 1
    assert faults[0].startswith(f"--set {text}")


def test_one_word_sections_can_be_gone_into(tmp_path: Path) -> None:
    """`model: name` and --set model.threads=2 go together."""
    config = load(_write(tmp_path, BASE + "model: oracle\n"), ["model.threads=2"])
    assert (config.model.name, config.model.threads) == ("oracle", 2)


def test_an_input_replaces_the_other_kind_of_input(tmp_path: Path) -> None:
    """--set input.sample takes the path away, and --set input.path the sample: exactly one is left."""
    config = load(_write(tmp_path, BASE), ["input.sample=plate"])
    assert (config.input.path, config.input.sample) == (None, "plate")
    config = load(_write(tmp_path, BASE.replace("path: slides/", "sample: plate")), ["input.path=[a, b]"])
    assert (config.input.path, config.input.sample) == (["a", "b"], None)
    config = load(_write(tmp_path, BASE), ["input.pattern=a", "input.preset=operetta"])
    assert (config.input.pattern, config.input.preset) == (None, "operetta")


def test_keys_that_exclude_others_exist() -> None:
    """The keys that an override takes away, and those that take them away, are keys of the config."""
    for loc, rivals in EXCLUDES.items():
        assert all(at(schema(), (*loc[:-1], name)) for name in (loc[-1], *rivals))


KEYS = st.sampled_from(["a", "b", "c"])
TREES = st.recursive(st.integers(), lambda below: st.dictionaries(KEYS, below, max_size=3), max_leaves=8)


@given(values=st.dictionaries(KEYS, TREES), loc=st.lists(KEYS, min_size=1, max_size=4), new=st.integers())
@settings(max_examples=100, deadline=None)
def test_an_override_changes_its_key_alone(values: dict[str, Any], loc: list[str], new: int) -> None:
    """After an override its key has its value, every other key has its old one, and the input is left alone."""
    before = json.dumps(values)
    override = parse_override(f"{'.'.join(loc)}={new}")
    try:
        changed = apply(values, override)
    except ConfigError:
        parent: Any = values
        for key in loc[:-1]:
            parent = parent.get(key, {})
            if not isinstance(parent, dict):
                return
        raise
    assert json.dumps(values) == before
    for key in {*values, *changed} - {loc[0]}:
        assert changed[key] == values[key]
    found: Any = changed
    for key in loc:
        found = found[key]
    assert found == new


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "\xff\xfe"])
def test_files_that_are_no_config(tmp_path: Path, text: str) -> None:
    """A file that holds no keys and values, or is no text, is refused."""
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load(str(path))


def test_yaml_is_1_2(tmp_path: Path) -> None:
    """Words and times stay words, 1e-3 is a number: YAML 1.2."""
    assert load(_write(tmp_path, BASE.replace("mine\n", "on\n", 1))).name == "on"
    assert load(_write(tmp_path, BASE), ["decode.seed_threshold=1e-3"]).decode.seed_threshold == 0.001
    assert parse_override("a=12:30:00").value == "12:30:00"


def test_schema_describes_every_key() -> None:
    """The schema says something of every key of every section, in more than the key's own words."""
    made = schema()
    for section in (made, *made["$defs"].values()):
        for name, node in section.get("properties", {}).items():
            assert node["description"] != name.replace("_", " "), f"{section['title']}.{name}"


def test_docstring_tables_describe_keys() -> None:
    """Where a section describes its keys in its docstring's table, the schema takes the words from there."""
    described = schema(NormaliseSpec)["properties"]
    assert described["low_percent"]["description"] == "percentile that becomes 0"
    assert described["contrast_floor"]["description"].endswith("64 for 16, 0.02 for 0..1")


def test_dotted() -> None:
    """Places are written as users write keys."""
    assert dotted(("input", "path", 0)) == "input.path[0]"
    assert dotted(()) == "the config"
