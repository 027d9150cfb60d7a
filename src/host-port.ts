/**
 * Where to connect, or to listen.
 * @module
 */

/** A host and a port. */
export interface HostPort {
  /** An IP address without brackets, or a name. */
  readonly host: string;
  /** 1 to 65535; 0 takes a free port where somebody listens. */
  readonly port: number;
}
