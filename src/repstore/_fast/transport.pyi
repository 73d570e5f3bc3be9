# nothing for Python: the loop drives it
