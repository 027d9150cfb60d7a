/**
 * The answer to "does this pass?": all stages that a packet has to pass, those behind the first refusal too, and for each
 * refusal what would mend it.
 * @module
 */
import type {
  ExposureInput,
  Owner,
  SelectorExposureInput,
  ServiceInput,
  SiteInput,
} from '../registry/index.ts';
import type { ExplanationStep, VerdictName } from '../translator/index.ts';
import type { FlowProtocol } from './query.ts';

/**
 * The stages, in their order.
 *
 * - `destination`: the address is a presence at the site of the sender
 * - `source`: the sender is a host of that site
 * - `permission`: an exposure allows the sender, the protocol and the port, now
 * - `presence`: the sender has an address at the other site, or gets one with its first packet
 * - `site`: neither site is revoked
 * - `tunnel`: the tunnels of both sites are up
 * - `programmed`: the worker that carries the packet decides as the desired state says
 * - `acknowledged`: the edges have acknowledged their latest snapshots; without that, names may be missing there, but
 *   the stage stops no packet at the cloud
 * - `translation`: the packet can be translated
 * - `reply`: the answer passes back
 */
export type StageName =
  | 'destination'
  | 'source'
  | 'permission'
  | 'presence'
  | 'site'
  | 'tunnel'
  | 'programmed'
  | 'acknowledged'
  | 'translation'
  | 'reply';

export interface Stage<Name extends string = StageName> {
  readonly name: Name;
  /** `unknown`: an earlier stage leaves nothing to look at, or the one who knows cannot be asked. */
  readonly outcome: 'ok' | 'no' | 'unknown';
  /** One sentence. */
  readonly reason: string;
  /** What would mend it. Present only with `no`, if there is something to do. */
  readonly fix?: Fix | undefined;
}

/** What would let the packet pass the stage. */
export interface Fix {
  /** One sentence. */
  readonly why: string;
  /** A command that does it; absent if it takes another way, which `why` names. */
  readonly command?: string | undefined;
  /** The same as a change of the desired state, for programs. */
  readonly change?: FixChange | undefined;
  /** The owner of the record that is to be changed. Only the owner can change it: a record of `file` is changed in the configuration file. */
  readonly owner?: Owner | undefined;
}

/** A record as it has to be, or a site to reinstate. */
export type FixChange =
  | { readonly kind: 'expose'; readonly exposure: ExposureInput | SelectorExposureInput }
  | { readonly kind: 'service'; readonly service: ServiceInput }
  | { readonly kind: 'site'; readonly site: SiteInput }
  | { readonly kind: 'reinstate'; readonly site: string };

/** The two ends of a packet. Addresses are text; ports are absent where the protocol has none. */
export interface FlowEnds {
  readonly source: string;
  readonly sourcePort?: number | undefined;
  readonly destination: string;
  readonly port?: number | undefined;
}

/** What happens to a packet. */
export interface FlowExplanation {
  readonly passes: boolean;
  /** The first stage that stops the packet; undefined if it passes. */
  readonly droppedAt: StageName | undefined;
  /** All stages in one line: `dropped at permission (DropNotPermitted)`. */
  readonly summary: string;
  readonly stages: readonly Stage[];
  /** The fix of the stage that stops the packet. */
  readonly fix: Fix | undefined;
  /** The site of the sender. */
  readonly from: string;
  /** The site of the host that the destination stands for; undefined if it stands for none. */
  readonly to: string | undefined;
  readonly protocol: FlowProtocol | undefined;
  /** The packet at the site of the sender; undefined if there was no address to send it to. */
  readonly before: FlowEnds | undefined;
  /** The packet at the site of the receiver; undefined if it does not get there. */
  readonly after: FlowEnds | undefined;
  /** What the data plane says; undefined if it could not be asked. */
  readonly verdict: VerdictName | undefined;
  /** The step of the data plane that decided. */
  readonly step: ExplanationStep | undefined;
  /** The packet that the data plane was asked about, and the translated one. */
  readonly packet: Uint8Array | undefined;
  readonly translated: Uint8Array | undefined;
}

export function ok<Name extends string>(name: Name, reason: string): Stage<Name> {
  return { name, outcome: 'ok', reason };
}

export function no<Name extends string>(name: Name, reason: string, fix?: Fix): Stage<Name> {
  return { name, outcome: 'no', reason, ...(fix && { fix }) };
}

export function unknown<Name extends string>(name: Name, reason: string): Stage<Name> {
  return { name, outcome: 'unknown', reason };
}
