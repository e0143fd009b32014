"""Servers over the sampling API: jobs in a queue, and the faces that people and programs see of it.

ledger     jobs as they lie on disk, which outlive the server
jobs       the queue: what is accepted, equal requests computed once, cancelling
engine     the one thread that samples, with one model in memory
uploads    media that clients send, checked by their content
guard      who may ask, how often, and under which name of the host
wire       the words of the HTTP API, and what they mean to the sampler
http       the routes
aliases    EasyAnimate's own three routes
"""
