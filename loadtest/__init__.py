"""The load-test suite: Locust users and scenarios that measure cold starts."""
