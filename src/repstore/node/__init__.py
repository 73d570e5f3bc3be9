"""One node: carries out what the rooms decide.

    control    NodeControl: engine events and configs in, verbs of the engine out; sync,
               time handed in, the same code in a process and in the simulator
    admin      what commands change in the coordination store: nodes, volumes, attaches
    lives      which life of its store a node had last, and behind which boots nothing was lost
    process    which process a node is, and proof that it is gone
    shell      the process around it: sockets, threads' ends, select
    native     the engine, its loop thread and its store
    directory  a cluster on one machine: which file is what, how nodes are made
    report     what a running node tells about itself
    inquiry    what a running node is asked about its copies
    status     how the cluster is, out of configs and reports
"""
from repstore.node.admin import (
    create_volume,
    delete_volume,
    detach_volume,
    load_nodes,
    load_volumes,
    register_node,
)
from repstore.node.control import NodeControl
from repstore.node.process import is_gone
from repstore.node.shell import NativeNode, NodeShell, client_shell, run_node
from repstore.replication.volume_config import NodeConfig, VolumeConfig

__all__ = [
    "NativeNode", "NodeConfig", "NodeControl", "NodeShell", "VolumeConfig", "client_shell",
    "create_volume", "delete_volume", "detach_volume", "is_gone", "load_nodes", "load_volumes",
    "register_node", "run_node",
]
