"""The callbacks of node.yaml: phasebus imports them from its folder."""


def announce(phase, config, data):
    """Print which engine arguments the start uses."""
    if phase == "pre_engine_init":
        print(f"engine_args: {data['engine_args']}")
