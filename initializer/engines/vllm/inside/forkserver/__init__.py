"""A fork server that has vLLM imported: forked processes begin at once, where spawned ones import for ten seconds each.

`begin` makes one out of a vLLM command, or starts one beside a Ray actor; `server` is its loop; `process` is the client:
the `multiprocessing` context that vLLM's modules get; `caller` carries over what a fork does not have from its server;
`imported` covers what libraries read when they are loaded. A request that fails for any reason ends in a spawned process.
"""
