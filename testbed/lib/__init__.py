"""The testbed: a GPU-less cluster of containers that boot systemd, with stand-in NVIDIA packages and a CPU vLLM."""
