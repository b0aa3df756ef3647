"""What all results of the lab say about their tokens and their computation."""

import json

import numpy as np
import pytest
import torch

import looplens as ll
from looplens.dynamics.maps.labelled import labelled, plain, variable
from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.recorded import recorded
from looplens.errors import InputError


def test_a_result_names_its_tokens_and_how_it_was_computed():
    found = recorded(ll.load_model("affine-huginn-mini"), [5, 7, 5, 8])
    token, whole = TokenMap(found.step, found.at(), [1]), SequenceMap(found.step)
    for map_, x in ((token, found.at()[[1]]), (whole, found.at().reshape(1, -1))):
        map_.jvp(x, torch.ones_like(x))
    token.ways.notes.append("seen")
    data = {
        "size": variable("token", [1.0, 2.0], "a size", "state units"),
        "word": variable(("token",), ["a", "b"], "a word", ""),
    }
    result = labelled(
        found,
        [1, 3],
        data,
        method="by hand",
        maps=[token, whole],
        coords={"point": np.arange(2)},
        notes=["first", "seen"],
        iteration=found.iteration(-1),
        cut=np.float32(0.5),
        places=(1, 2),
        kind=torch.float64,
    )
    assert result["token"].values.tolist() == [1, 3]
    assert result["position"].values.tolist() == [1, 3]
    assert result["prompt"].values.tolist() == [0, 0]
    assert result["word"].dtype == object
    every = [result[name].attrs for name in ("size", "word", "token", "prompt", "position")]
    assert all(attrs["long_name"] and attrs["units"] for attrs in every)
    said = result.attrs
    assert json.loads(json.dumps(said)) == said
    assert (said["model"], said["dtype"], said["causal"]) == ("affine-huginn-mini", "float32", True)
    assert said["attention"].startswith("written out")
    assert "; math" in said["attention"]
    assert said["derivative"] == "reverse mode twice"
    assert said["notes"] == ["first", "seen"]
    assert (said["iteration"], said["cut"], said["places"]) == (found.iterations[-1], 0.5, [1, 2])
    bare = labelled(found, [0], {}, method="by hand").attrs
    assert bare["attention"] == "as in the forward"
    assert "derivative" not in bare


def test_values_as_json_holds_them():
    values = {"a": np.arange(2), "b": {1: np.bool_(True)}, "c": {np.int64(3)}, "d": None}
    assert plain(values) == {"a": [0, 1], "b": {"1": True}, "c": [3], "d": None}


def test_iterations_are_numbered_as_they_were_recorded():
    found = recorded(ll.load_model("affine-huginn-mini"), [5, 7], iterations=6)
    assert [found.iteration(i) for i in (None, 0, 2, -1, -3)] == [6, 0, 2, 6, 4]
    for outside in (7, -8):
        with pytest.raises(InputError, match=f"iteration={outside} was not recorded"):
            found.iteration(outside)
