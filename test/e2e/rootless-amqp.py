"""rootless-amqp.py HOST:PORT FILE: publishes 1,000 messages and the first 4 MiB of the file at a RabbitMQ, waits until
the broker has confirmed them, consumes them, and prints what came back."""

import hashlib
import sys

import amqp

host, path = sys.argv[1:]
with open(path, "rb") as file:
    large = file.read(4 << 20)
bodies = [f"message {i}".encode() for i in range(1000)] + [large]
got = []

with amqp.Connection(host, userid="guest", password="guest", confirm_publish=True) as connection:
    channel = connection.channel()
    queue = channel.queue_declare(exclusive=True).queue
    for body in bodies:
        channel.basic_publish(amqp.Message(body), routing_key=queue)

    def on_message(message):
        got.append(message.body if isinstance(message.body, bytes) else message.body.encode())
        channel.basic_ack(message.delivery_tag)

    channel.basic_consume(queue, callback=on_message)
    while len(got) < len(bodies):
        connection.drain_events()

print(len(got) - 1, "in order" if got[:-1] == bodies[:-1] else "in another order")
print(hashlib.sha256(got[-1]).hexdigest())
