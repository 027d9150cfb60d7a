/**
 * Why an endpoint cannot open a connection or a listener.
 * @module
 */

/**
 * Node's code of the reason: the port is taken, no port is free, there is no memory for more connections, or the
 * endpoint is destroyed.
 */
export type TcpOpenCode = 'EADDRINUSE' | 'EADDRNOTAVAIL' | 'ENOBUFS' | 'ENETDOWN';

export class TcpOpenError extends Error {
  readonly code: TcpOpenCode;

  constructor(code: TcpOpenCode, message: string) {
    super(message);
    this.name = 'TcpOpenError';
    this.code = code;
  }
}
