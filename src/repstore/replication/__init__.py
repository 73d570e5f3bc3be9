"""Room 2: who leads a volume, who counts, who comes back. Sans-I/O.

Read in this order: `volume_config` (what is decided), `membership` (how it may change),
`policy` (one volume on one node: events in, actions out), `promotion` and `leadership`
(its two busy roles), `engine_control` (the engine it steers). Nothing here knows a clock,
a socket or a thread.
"""
