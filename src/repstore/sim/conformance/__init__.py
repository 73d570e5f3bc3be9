"""Suites that anybody's own disk backend or config store has to pass; ours do.

    backend         what a disk backend promises: completion, order, flush, errors, short I/O
    config_store    what a config store promises: C1-C6 of `coordination.interface`

A suite is a class of pytest tests. Derive from it in a test module of yours, write the one
fixture it asks for, and run pytest. Needs pytest: `pip install repstore[conformance]`.
"""
try:
    import pytest
except ImportError as error:
    raise ImportError("repstore.sim.conformance needs pytest: pip install 'repstore[conformance]'") from error

# a failing assertion of the suites shows its values, as one in a test module does
pytest.register_assert_rewrite(f"{__name__}.backend", f"{__name__}.config_store")
