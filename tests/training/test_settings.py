"""Every setting of every family is told: default, range or choices, and a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from gensdk.cli.main import cli
from gensdk_runtime.errors import InputError
from gensdk_training.family import FamilyConfig
from gensdk_training.registry import families, get_family
from gensdk_training.run_config import DataConfig, RunConfig
from gensdk_training.settings import Setting, settings_of

every_family = pytest.mark.parametrize("name", families())


@every_family
def test_every_setting_has_a_sentence_a_default_and_its_values(name: str) -> None:
    config = get_family(name).Config
    settings = settings_of(config)
    assert {each.name for each in settings} == set(config.model_fields)
    shared = [each.name for each in settings][-len(FamilyConfig.model_fields) :]
    assert set(shared) == set(FamilyConfig.model_fields), "those of every family come last"
    assert config.from_dict({each.name: each.default for each in settings}, what="defaults") == config()
    for each in settings:
        assert each.meaning[0].isupper() or each.meaning.startswith(("lambda", "kappa", "alpha", "beta", "gamma"))
        assert each.meaning.endswith("."), each
        assert 10 < len(each.meaning) < 300, each
        assert each.values, each


@every_family
def test_what_is_said_of_values_is_true(name: str) -> None:
    """Every choice that is named is taken, and what lies outside a range is not."""
    config = get_family(name).Config
    assert settings_of(config)
    for each in settings_of(config):
        for value in _said(each):
            settings = {each.name: value}
            if not value_is_taken(config, settings):
                raise AssertionError(f"{each.name} = {value!r} is refused, but {each.values!r} is said")
        if " <= value" in each.values and "list" not in each.values:
            low = float(each.values.split(", ")[1].split(" <=")[0])
            below = int(low) - 1 if "whole" in each.values else low - 1e-9
            assert not value_is_taken(config, {each.name: below}), each
        assert not value_is_taken(config, {each.name: {"no": "value"}}), each


def _said(setting: Setting) -> list[Any]:
    if "value" in setting.values or "text" in setting.values or "list" in setting.values:
        return [None] if setting.values.endswith("null") else []
    words = setting.values.removesuffix(" or null").split(" | ")
    known = {"true": True, "false": False}
    return [known.get(word, int(word) if word.isdigit() else word) for word in words]


def value_is_taken(config: type[FamilyConfig], settings: dict[str, Any]) -> bool:
    try:
        config.from_dict(settings, what="settings")
    except InputError:
        return False
    return True


@every_family
@pytest.mark.parametrize("width", [30, 40, 80])
def test_the_list_of_a_family_fits_its_terminal(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = CliRunner().invoke(cli, ["list", name]).output.splitlines()
    long = [line for line in lines if len(line) > width]
    assert all(len(line.split()) == 1 or line.split()[1] == "=" for line in long), "words are whole"
    text = " ".join(" ".join(lines).split())
    for each in settings_of(get_family(name).Config):
        assert f"{each.name} = {json.dumps(each.default)} {each.values} {each.meaning}" in text


def test_the_list_as_json() -> None:
    result = CliRunner().invoke(cli, ["list", "ddpm", "--json"])
    found = json.loads(result.output)
    assert found["name"] == "ddpm"
    assert {"name": "channels", "default": 16, "values": "whole number, 2 <= value <= 65536"}.items() <= found[
        "settings"
    ][0].items()
    with pytest.raises(InputError, match="no family 'ddmp'; did you mean 'ddpm'"):
        CliRunner().invoke(cli, ["list", "ddmp"], catch_exceptions=False)


@every_family
def test_a_wrong_setting_points_to_the_list(name: str) -> None:
    run = RunConfig(family=name, data=DataConfig(source="digits"))
    for config, words in (
        ({"stepz": 3}, "unknown key 'stepz'; did you mean 'steps'?"),
        ({"steps": 0}, "steps: Input should be greater than or equal to 1;"),
        ({"qqq": 3}, "unknown key 'qqq'; known: " + ", ".join(sorted(get_family(name).Config.model_fields))),
    ):
        with pytest.raises(InputError) as failure:
            run.model_copy(update={"config": config}).family_config()
        assert words in str(failure.value)
        assert str(failure.value).endswith(f"gensdk list {name} shows them all")
        assert "\n" not in str(failure.value)
