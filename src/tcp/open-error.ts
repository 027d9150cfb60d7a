/**
 * Why an endpoint cannot open a connection or a listener.
 * @module
 */

/** Node's code of the reason: the port is taken, no port is free, or there is no memory for more connections. */
export type TcpOpenCode = 'EADDRINUSE' | 'EADDRNOTAVAIL' | 'ENOBUFS';

export class TcpOpenError extends Error {
  readonly code: TcpOpenCode;

  constructor(code: TcpOpenCode, message: string) {
    super(message);
    this.name = 'TcpOpenError';
    this.code = code;
  }
}
