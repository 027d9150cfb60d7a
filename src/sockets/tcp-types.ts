/**
 * The part of TCP that the sockets use.
 * @module
 */
import type { TcpEndpoint } from '../tcp/index.ts';
import type { SocketHost as Host } from './host.ts';

export {
  type ListenerOwner,
  type TcpConnection,
  TcpEvent,
  type TcpFailure,
  type TcpListener,
  type TcpOwner,
} from '../tcp/index.ts';

/** The part of the stack that the sockets use. */
export type SocketHost = Omit<Host, 'tcp' | 'udp'> & {
  readonly tcp: Pick<TcpEndpoint, 'connect' | 'listen'>;
};
