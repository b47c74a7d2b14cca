"""vLLM, in a Ray actor (`launch`) or as a command of the user's (`command_line`, `steps`).

This file imports nothing: every process of a watched vLLM imports it with `inside`.
"""
