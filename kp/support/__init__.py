"""What every package may use: safe file writing, devices, interruption, a process pool.

It imports nothing else of kp.
"""
