"""Room 5: the product's own engine in a world made of memory, with one seed as the whole run.

    clock          one virtual clock, one heap of what happens, and what each node's clock says
    disk           volatile writes, kill and power cut, and every way a disk fails
    network        connections with delay, break, cut and heal
    config_store   the coordination store, away, late and without an answer
    engine         the compiled engine of production on an image, without a thread
    node           one node: engine, control code, disk; it crashes and comes back
    workload       a client, and `expectation`: what every block may read as
    cluster        all of it together: `SimulatedCluster(seed)`
    plan           everything that a seed draws: a world, its faults, its operations
    atlas          which damage a run may do
    scene          a cluster in the middle of a plan, with its operator
    faults         what goes wrong, kind by kind
    meeting        faults that lie in wait, and when something meets them
    oracles        what must hold of a whole cluster
    run            one plan, from a healthy cluster to the verdict
    seeds          many of them
    minimize       the shortest plan that still fails
    timeline       a failure for a person
    trace          what happened, byte for byte the same for the same seed
    recording      one store whose disk writes are logged
    crash_check    is what a crash leaves what was promised? For anybody's store
    difference     two contents told apart in a line
    durability     the same for a volume of ours
    conformance    suites for anybody's disk backend and config store
    crash_states   every image that a crash may leave of such a log

Nothing of the product imports this room, but the command, lazily.
"""
