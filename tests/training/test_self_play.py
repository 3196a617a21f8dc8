"""The pool of earlier selves, how opponents are drawn from it, and what is refused."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from storage.files import FileError
from storage.policy_file import About, load_policy
from storage.run_folder import RunFolder
from tests.storage.policies import make_agent
from training.config import default_config
from training.errors import TrainingError
from training.self_play import Pool, Record, SelfPlay, SelfPlayConfig, make_pool, pfsp

CPU = torch.device("cpu")


def make_policy():
    return make_agent().policy


def make(folder, seed=0, **options):
    return Pool(SelfPlayConfig(**options), folder, seed=seed, device=CPU)


def test_pfsp_weights_by_the_formula():
    # Weights 0.01, 0.25 and 0.81, the first one raised to the floor.
    chances = pfsp([0.9, 0.5, 0.1], power=2, floor=0.05)
    np.testing.assert_allclose(chances, np.array([0.05, 0.25, 0.81]) / 1.11)
    np.testing.assert_allclose(pfsp([0.2, 0.7], power=0, floor=0.05), [0.5, 0.5])
    np.testing.assert_allclose(pfsp([1.0, 1.0], power=2, floor=0.05), [0.5, 0.5])


def test_a_win_rate_follows_recent_results():
    record = Record()
    assert record.win_rate == 0.5
    record.add(1.0)
    assert record.win_rate == pytest.approx(2 / 3)
    for _ in range(500):
        record.add(0.0)
    assert record.win_rate < 0.03
    for _ in range(500):
        record.add(0.5)
    assert record.win_rate == pytest.approx(0.5, abs=0.01)


def test_draws_have_the_probabilities_of_pfsp(tmp_path):
    pool = make(tmp_path / "pool", latest_share=0.3)
    policy = make_policy()
    for env_steps in (0, 10, 20):
        pool.freeze(policy, {}, About(env_steps=env_steps))
    easy, hard, _ = pool.names
    for _ in range(200):
        pool.report(easy, 1.0)
        pool.report(hard, 0.0)
    rates = [pool.records[name].win_rate for name in pool.names]
    expected = 0.7 * pfsp(rates, power=2, floor=0.05) + [0, 0, 0.3]
    drawn = [pool.draw(0) for _ in range(4000)]
    found = np.array([drawn.count(name) for name in pool.names]) / 4000
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / 4000))


def test_a_frozen_self_stays_as_it_was(tmp_path):
    pool, policy = make(tmp_path / "pool"), make_policy()
    before = [p.clone() for p in policy.parameters()]
    name = pool.freeze(policy, {}, About(env_steps=7))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 1
    kept = load_policy(tmp_path / "pool" / f"{name}.safetensors").policy
    assert all(torch.equal(a, b) for a, b in zip(before, kept.parameters(), strict=True))
    acting, device = pool.player(name)
    ours = acting._copy.state_dict()
    assert device == CPU
    assert all(torch.equal(b, ours[n]) for n, b in kept.state_dict().items())


def test_beyond_its_size_the_easiest_goes(tmp_path):
    pool, policy = make(tmp_path / "pool", pool_size=3), make_policy()
    for env_steps in range(3):
        pool.freeze(policy, {}, About(env_steps=env_steps))
    first, second, third = pool.names
    pool.report(second, 1.0)
    fourth = pool.freeze(policy, {}, About(env_steps=3))
    assert pool.names == [first, third, fourth]
    assert {p.name for p in (tmp_path / "pool").glob("*.safetensors")} == {
        f"{name}.safetensors" for name in pool.names
    }
    pool.report(second, 1.0)  # Of a match that was in progress.
    assert pool.player(second) == pool.player(fourth)


def test_a_pool_is_whole_whenever_it_is_saved(tmp_path, monkeypatch):
    """A self is only removed after the pool without it has been saved."""
    folder = tmp_path / "pool"
    pool, policy = make(folder, pool_size=2), make_policy()
    save, saved = pool.save, []

    def save_and_look():
        save()
        files = {path.stem for path in folder.glob("*.safetensors")}
        saved.append(set(json.loads((folder / "pool.json").read_text())) <= files)
        # What was saved before had all of its files until now.
        saved.append(before <= files)

    monkeypatch.setattr(pool, "save", save_and_look)
    for env_steps in range(4):
        before = set(pool.names)
        pool.freeze(policy, {}, About(env_steps=env_steps))
    assert saved == [True] * 8


def test_a_training_resumes_with_its_pool(tmp_path):
    pool, policy = make(tmp_path / "pool"), make_policy()
    pool.begin(policy, {}, About())
    pool.freeze(policy, {}, About(env_steps=5))
    pool.report(pool.names[0], 1.0)
    pool.save()
    again = make(tmp_path / "pool")
    again.begin(policy, {}, About(env_steps=5))
    assert again.records == pool.records
    assert all(again.player(name) for name in pool.names)
    fresh = make(tmp_path / "pool")
    fresh.begin(policy, {}, About())
    assert fresh.names == ["000000000000"]
    assert len(list((tmp_path / "pool").glob("*.safetensors"))) == 1
    (tmp_path / "pool" / "pool.json").write_text("[]")
    with pytest.raises(FileError, match=r"pool\.json is damaged"):
        make(tmp_path / "pool").begin(policy, {}, About(env_steps=5))


def test_selves_are_frozen_every_so_often_and_logged(tmp_path):
    pool, policy = make(tmp_path / "pool"), make_policy()
    pool.begin(policy, {}, About())
    logged = {}
    config = default_config("players:duel")
    training = SimpleNamespace(
        agent=SimpleNamespace(policy=policy, value_unit=1.0),
        config=config,
        progress=SimpleNamespace(env_steps=0),
        logger=SimpleNamespace(record=logged.__setitem__),
    )
    callback = SelfPlay(pool, every=100)
    for env_steps in (60, 120, 180, 240):
        training.progress.env_steps = env_steps
        callback.on_update(training, None, {})
    assert [int(name) for name in pool.names] == [0, 120, 240]
    assert logged == {
        "selfplay/win_rate": 0.5,
        "selfplay/win_rate_hardest": 0.5,
        "selfplay/pool": 3,
    }


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"num_ranks": 2}, "leave out torchrun"),
        ({"eval_envs": "shared"}, "--eval-envs shared"),
        ({"overlap": True}, "--overlap"),
    ],
)
def test_who_cannot_play_against_itself(tmp_path, changes, remedy):
    config = default_config("players:duel")
    config = replace(config, num_groups=1, **changes)
    with pytest.raises(TrainingError, match=remedy):
        make_pool(config, RunFolder(tmp_path), CPU)


def test_only_matches_with_the_opponent_self_have_a_pool(tmp_path):
    folder = RunFolder(tmp_path)
    assert make_pool(default_config("basic"), folder, CPU) is None
    duel = default_config("players:duel")
    assert make_pool(duel, folder, CPU) is not None
    assert make_pool(replace(duel, env=replace(duel.env, opponent="bot")), folder, CPU) is None


@pytest.mark.parametrize(
    "options",
    [{"pool_size": 0}, {"pfsp_floor": 0.0}, {"latest_share": 1.5}, {"freeze_every": 0}],
)
def test_values_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SelfPlayConfig(**options)


def test_a_pool_is_json(tmp_path):
    pool = make(tmp_path / "pool")
    pool.begin(make_policy(), {}, About())
    assert json.loads((tmp_path / "pool" / "pool.json").read_text()) == {
        "000000000000": {"matches": 0.0, "won": 0.0}
    }


@pytest.mark.parametrize("results", ['{"000000000000": {"matches": "many"}}', '{"0": 1}'])
def test_a_damaged_pool_is_refused(tmp_path, results):
    pool = make(tmp_path / "pool")
    pool.begin(make_policy(), {}, About())
    (tmp_path / "pool" / "pool.json").write_text(results)
    with pytest.raises(FileError, match=r"pool.json is damaged; start over with --fresh"):
        make(tmp_path / "pool").begin(make_policy(), {}, About(env_steps=100))


def test_every_self_names_what_its_policy_imports(tmp_path):
    make(tmp_path / "pool").begin(make_policy(), {}, About(), ("tests.agents.toy",))
    (file,) = (tmp_path / "pool").glob("*.safetensors")
    assert load_policy(file, trust=True).imports == ("tests.agents.toy",)
