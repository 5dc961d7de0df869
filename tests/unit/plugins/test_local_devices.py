"""The devices of this machine, and valid requests for them."""

import pytest

from jobmon.core.configuration import JobmonConfig
from jobmon.core.exceptions import ConfigError
from jobmon.plugins.local import devices
from jobmon.plugins.local.devices import local_devices, problems_with


@pytest.fixture
def config(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_found", lambda: ["0", "1"])
    config = JobmonConfig()

    def with_settings(**values):
        for name, value in values.items():
            config.set("multiprocess", name, value)
        return config

    return with_settings


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, {"gpus": ["0", "1"]}),
        ({"gpus": "none"}, {}),
        ({"gpus": "2, 5"}, {"gpus": ["2", "5"]}),
        ({"gpus": "none", "resources": "licence=2, disk=1"}, {"licence": ["0", "1"], "disk": ["0"]}),
    ],
)
def test_settings_say_what_there_is(config, settings, found):
    assert local_devices(config(**settings)) == found


def test_a_script_that_may_use_some_gpus_only_hands_out_these(config, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert local_devices(config()) == {"gpus": ["3"]}


@pytest.mark.parametrize(
    "settings", [{"gpus": "0,0"}, {"gpus": "a b"}, {"resources": "x"}, {"resources": "gpus=1"}, {"resources": "a/b=1"}]
)
def test_a_setting_that_cannot_be_read_is_named(config, settings):
    with pytest.raises(ConfigError, match=f"multiprocess.{next(iter(settings))}"):
        local_devices(config(**settings))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"gpus": 2}, ""),
        ({"gpus": 3}, "gpus 3: this machine has 2"),
        ({"gpus": "a100:1"}, "must be an integer"),
        ({"gpus": True}, "must be an integer"),
        ({"resources": {"licence": 1}}, "licence 1: this machine has none"),
        ({"resources": {"a/b": 1}}, "must be a dict such as"),
        ({"resources": {"licence": 0}}, "must be an integer"),
        ({"resources": ["licence"]}, "must be a dict such as"),
        ({"cores": 1}, ""),
    ],
)
def test_what_a_task_may_ask_for(config, asked, words):
    found = "; ".join(problems_with(asked, config()))
    assert words in found
    assert bool(found) == bool(words)
