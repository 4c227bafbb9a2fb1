"""Hostile input: what may be wrong with each kind of file, and the contract that every case is held to."""
