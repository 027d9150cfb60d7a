/**
 * `MtlsTunnel`: the two ways to a tunnel between gateways that know each other by certificate.
 * @module
 */
import { DialledTunnel, type DialOptions } from './dialer.ts';
import type { ListenOptions } from './listen-options.ts';
import { TunnelListener } from './listener.ts';

export const MtlsTunnel = {
  /**
   * Begins to connect, and to connect again whenever the tunnel breaks, until it is closed. It keeps
   * the process alive until then.
   *
   * @throws {CertificateError} if the credentials are unusable.
   * @throws {ApiMisuseError} if an option is.
   * @throws {ConfigError} if `proxy` names no proxy that can be used.
   */
  dial(options: DialOptions): DialledTunnel {
    return new DialledTunnel(options);
  },

  /**
   * Listens for tunnels.
   *
   * @throws {CertificateError} if the credentials are unusable or name no gateway.
   * @throws {ApiMisuseError} if an option is.
   * @throws {EnvironmentError} if the port cannot be had.
   */
  listen(options: ListenOptions): Promise<TunnelListener> {
    return TunnelListener.listen(options);
  },
} as const;
