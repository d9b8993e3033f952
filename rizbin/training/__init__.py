"""The engine under the rooms: the contract of a method, and the loop that runs any of them."""
