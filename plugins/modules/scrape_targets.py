#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: scrape_targets
short_description: Name what Prometheus scrapes of the inventory
description:
  - Returns three lists as Prometheus' C(file_sd_configs) reads them. Runs on the controller and asks no host. It is an action;
    this file documents it.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
extends_documentation_fragment:
  - lockstep.vllm.fleet.read_only
options:
  exporter_port:
    description: Where node_exporter listens on the hosts.
    type: int
    default: 9100
"""

EXAMPLES = r"""
- name: Read scrape targets of the inventory
  lockstep.vllm.scrape_targets:
  register: scrape_targets
"""

RETURN = r"""
hosts:
  description: node_exporter of every host of a replica.
  returned: always
  type: list
  elements: dict
replicas:
  description: vLLM of every head, with the label C(replica).
  returned: always
  type: list
  elements: dict
routers:
  description: HAProxy of every router that has C(vllm_haproxy_metrics_clients), with the label C(router).
  returned: always
  type: list
  elements: dict
"""
