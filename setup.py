"""Which packages the wheel holds; all else stands in pyproject.toml, which cannot say that configs/ goes inside."""

from setuptools import find_namespace_packages, setup

CONFIGS = "lightning_attack.configs"

setup(
    package_dir={CONFIGS: "configs"},
    packages=[
        *find_namespace_packages(include=["lightning_attack*"]),
        CONFIGS,
        *(f"{CONFIGS}.{folder}" for folder in find_namespace_packages("configs")),
    ],
)
