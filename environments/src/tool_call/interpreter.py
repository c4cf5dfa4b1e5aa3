# Runs what comes in: first what a problem has ready, then, after a zero, the code. An exception is told
# behind a mark: its class, and the end of its traceback.
def run():
    import sys
    names = globals()
    del names["run"]
    prelude, _, code = sys.stdin.read().partition("\0")
    try:
        for name, text in ("<prelude>", prelude), ("<code>", code):
            exec(compile(text, name, "exec"), names)
    except Exception as error:
        import linecache, traceback
        linecache.cache["<code>"] = len(code), None, code.splitlines(True), "<code>"
        if error.__traceback__:
            error.__traceback__ = error.__traceback__.tb_next
        told = "".join(traceback.format_exception(error)).splitlines()[-8:]
        sys.stderr.write("\n\x1e" + type(error).__name__ + "\n" + "\n".join(told)[-1200:] + "\n")
        sys.stderr.flush()
        sys.exit(1)


run()
