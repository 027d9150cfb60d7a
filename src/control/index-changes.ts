/**
 * What a change of the desired state has changed for the controller, by keys. A key may be here without a difference:
 * who reads it looks at the present state.
 * @module
 */
import type { Endpoint } from '../base/endpoint.ts';

/** What has changed in one realm. */
export interface RealmChanges {
  /** The keys of presences of services that have come, gone or changed. */
  readonly hosts: Set<string>;
  /** The sites some of whose hosts may not be clients any more. */
  readonly narrowed: Set<string>;
  /** The sites that have become, or are no longer, sites with clients there, or whose `maxClients` has changed. */
  readonly parties: Set<string>;
}

/** The permits of the clients of one realm for one host. */
export interface PermitPair {
  readonly realm: string;
  readonly service: Endpoint;
}

export class IndexChanges {
  /** Whether everything has changed. Then what has come, or is still there, is not noted by keys. */
  readonly isEverything: boolean;
  /** The sites whose records have changed. */
  readonly sites: Set<string> = new Set();
  readonly realms: Map<string, RealmChanges> = new Map();
  /** Keyed by realm and endpoint. */
  readonly permits: Map<string, PermitPair> = new Map();
  /** The sites whose names may have changed. */
  readonly views: Set<string> = new Set();

  constructor(isEverything: boolean) {
    this.isEverything = isEverything;
  }

  get isEmpty(): boolean {
    const { isEverything, sites, realms, permits, views } = this;
    return !isEverything && sites.size + realms.size + permits.size + views.size === 0;
  }

  realm(name: string): RealmChanges {
    let realm = this.realms.get(name);
    if (realm === undefined) {
      realm = { hosts: new Set(), narrowed: new Set(), parties: new Set() };
      this.realms.set(name, realm);
    }
    return realm;
  }

  permit(realm: string, service: Endpoint): void {
    this.permits.set(permitKey(realm, service), { realm, service });
  }
}

export function permitKey(realm: string, { key }: Endpoint): string {
  return `${realm} ${key}`;
}
