"""Tests of `envs.vector.messages`."""

import socket

import numpy as np
import pytest

from envs import EnvError
from envs.errors import describe_error
from envs.vector.messages import as_json, receive_json


def test_json_arrives_with_strings_as_keys_and_lists_for_arrays():
    one, other = socket.socketpair()
    with one, other:
        one.sendall(as_json({3: np.array([[1, 2]]), "a": np.float32(0.5), "b": "text"}) + b"rest")
        assert receive_json(other) == {"3": [[1, 2]], "a": 0.5, "b": "text"}
        assert other.recv(10) == b"rest"


def test_other_objects_are_refused():
    with pytest.raises(EnvError, match=r"^\{1, 2\} cannot be sent between processes; numbers, str"):
        as_json({"a": {1, 2}})


def test_errors_are_described_in_one_line_with_their_place():
    try:
        raise ZeroDivisionError("two\n  lines")
    except ZeroDivisionError as error:
        line = describe_error(error)
    assert line.startswith("ZeroDivisionError: two lines (test_messages.py:")
    assert describe_error(EnvError("it is wrong")) == "it is wrong"
