"""A whole cluster's start-up: `initialize_cluster`, from the driver's side and from the nodes'.

`start` has the driver's phases, `engines` starts and watches the nodes, `member` is what runs on each of them.
"""

from phasebus.initializer.cluster.config import ClusterConfig, load_cluster_config
from phasebus.initializer.cluster.events import NodeConflictError, NodeLostError, PostCluster, PreCluster
from phasebus.initializer.cluster.nodes import ClusterNode
from phasebus.initializer.cluster.start import Cluster, initialize_cluster

__all__ = [
    "Cluster",
    "ClusterConfig",
    "ClusterNode",
    "NodeConflictError",
    "NodeLostError",
    "PostCluster",
    "PreCluster",
    "initialize_cluster",
    "load_cluster_config",
]
