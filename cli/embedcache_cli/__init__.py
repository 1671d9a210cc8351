"""The command line: one thin file per command, each a call of one public function."""
