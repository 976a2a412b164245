"""Stand-ins and fault switches of the Lockstep testbed inside the serving environment."""


def platform() -> str:
    """Name the platform class for vLLM's platform plug-ins."""
    return "lockstep_testbed.platform.TestbedPlatform"
