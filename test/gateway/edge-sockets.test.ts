import { once } from 'node:events';
import { expect, test } from 'vitest';
import { EdgeSockets } from '../../src/gateway/edge-sockets.ts';
import { SocketStack } from '../../src/sockets/index.ts';

test('before there is a tunnel a connect says that the tunnel is down, not that an address is missing', async () => {
  const stack = new SocketStack({ tunnelWaitMs: 1 });
  expect(new EdgeSockets(stack, stack).stack).toBe(stack);
  const socket = stack.connect(80, '10.0.0.5');
  const [error] = await once(socket, 'error');
  expect(error).toMatchObject({ code: 'ENETDOWN', cause: { message: 'the tunnel is down' } });
  await stack.close();
});
