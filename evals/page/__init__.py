"""The review page: one label at a time, over the queue. `create_app` and `SignIn` are what `flows` uses."""
