/**
 * All contenders, in the order of the table.
 * @module
 */
import type { Contender } from '../contender.ts';
import type { GatewayPrograms } from '../gateway-build.ts';
import { nft, plain } from './kernel.ts';
import { openvpn } from './openvpn.ts';
import { ours } from './ours.ts';
import { nebula, wireguardGo } from './overlays.ts';
import { haproxyMtls, nginxMtls } from './proxies.ts';
import { tayga } from './tayga.ts';

/** @param gateways the programs of ours */
export function contenders(gateways: GatewayPrograms): Contender[] {
  return [ours(gateways), plain, nft, nginxMtls, haproxyMtls, openvpn, nebula, wireguardGo, tayga];
}
