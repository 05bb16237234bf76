"""`python -m dhrd_plugin …`: the harness's command line, where `.pth` files are ignored."""

from dhrd_plugin import autoload


def main() -> None:
    autoload.install()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
