"""moorage bridge: relays CSI calls from the control plane's worker to plugins on this machine.

settings -> run -> tls, relay (fence, admission), watch (fingerprints of plugins), registration (heartbeat)
"""
