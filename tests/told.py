"""A stand-in for the reporter of a stage that downloads."""


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.states, self.lines, self.transfers = [], [], []

    def state(self, name):
        self.states.append(name)

    def info(self, message):
        self.lines.append(message)

    def transfer(self, name, done, total, rate):
        self.transfers.append((name, done, total))
