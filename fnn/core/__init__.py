"""The ground floor: the protocol that every layer keeps. It imports nothing else of fnn."""
