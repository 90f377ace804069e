"""What a grid will cost: trials from measured epochs or a few timed steps, then a schedule.

``measured`` and ``calibrate`` say how long trials take, ``simulate`` how long all of them take
on so many slots, ``forecast`` puts the two together, and ``kept`` remembers what a run was
estimated at, so that one can tell afterwards how wrong that was.
"""
