"""Room 5: the product's own engine in a world made of memory, with one seed as the whole run.

    clock          one virtual clock, one heap of what happens
    disk           volatile writes, kill and power cut
    network        connections with delay, break, cut and heal
    engine         the compiled engine of production on an image, without a thread
    node           one node: engine, control code, disk; it crashes and comes back
    workload       a client that knows what every block may read as
    cluster        all of it together: `SimulatedCluster(seed)`
    trace          what happened, byte for byte the same for the same seed
    recording      one store whose disk writes are logged
    crash_states   every image that a crash may leave of such a log

Nothing of the product imports this room, but the command, lazily.
"""
