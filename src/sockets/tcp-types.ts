/**
 * The part of TCP that the sockets use.
 * @module
 */
export {
  type ListenerOwner,
  type TcpConnection,
  TcpEvent,
  type TcpFailure,
  type TcpListener,
  type TcpOwner,
} from '../tcp/index.ts';
export type { SocketHost } from './host.ts';
