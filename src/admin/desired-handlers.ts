/**
 * Answers the operations on the desired state.
 * @module
 */
import { ConfigError, NotFoundError } from '../errors.ts';
import type {
  DesiredRecord,
  DesiredState,
  Exposure,
  RecordName,
  RecordQuery,
  Registry,
  SelectorExposure,
  Service,
  Site,
  Spec,
} from '../registry/index.ts';
import { versionOf } from '../registry/records.ts';
import type { Page } from './answers.ts';
import type { DesiredOperations } from './desired-operations.ts';
import { type Handlers, Versioned } from './handler.ts';
import type { PageQuery } from './page.ts';

/** The owner of what the admin interface sets. */
const OWNER = 'admin';

type Owned<T> = T & { readonly owner: DesiredRecord['owner'] };

export function desiredHandlers(registry: Registry): Handlers<DesiredOperations> {
  const one = <T extends object>(name: RecordName): Versioned<T> => {
    const record = registry.record(name);
    if (record !== undefined) return versioned<T>(record);
    const { kind, ...key } = name;
    throw new NotFoundError(`there is no ${kind} "${Object.values(key).join('/')}"`);
  };
  const page = <T extends object>(
    { cursor, ...query }: PageQuery & Partial<RecordQuery>,
    kind: RecordName['kind'],
    keyOf: (item: T) => string
  ): Page<T> => {
    const records = registry.page({ ...query, kind, after: cursor, limit: query.limit + 1 });
    const items = records.slice(0, query.limit).map(answerOf<T>);
    return records.length > items.length ? { items, next: keyOf(items.at(-1)!) } : { items };
  };
  const named = ({ name }: { readonly name: string }) => name;

  return {
    listSites: ({ query }) => page<Owned<Site>>(query, 'site', named),
    getSite: ({ params: { site } }) => one<Owned<Site>>({ kind: 'site', name: site }),
    putSite: ({ params, body, expect }) => {
      const { site: name } = params;
      const site = { ...body, name: same('name', body.name, name) };
      return written<Site>(registry.putSite(site, OWNER, { expect }));
    },
    deleteSite: ({ params: { site }, expect }) => registry.removeSite(site, OWNER, { expect }),

    listServices: ({ query }) => page<Owned<Service>>(query, 'service', named),
    getService: ({ params: { service } }) =>
      one<Owned<Service>>({ kind: 'service', name: service }),
    putService: ({ params, body, expect }) => {
      const { service: name } = params;
      const service = { ...body, name: same('name', body.name, name) };
      return written<Service>(registry.putService(service, OWNER, { expect }));
    },
    deleteService: ({ params: { service }, expect }) =>
      registry.removeService(service, OWNER, { expect }),

    listExposures: ({ query }) =>
      page<Owned<Exposure>>(query, 'exposure', ({ site, service }) => `${site}/${service}`),
    getExposure: ({ params }) => one<Owned<Exposure>>({ kind: 'exposure', ...params }),
    putExposure: ({ params, body, expect }) => {
      const site = same('site', body.site, params.site);
      const service = same('service', body.service, params.service);
      const exposure = { ...body, site, service };
      return written<Exposure>(registry.expose(exposure, OWNER, { expect }));
    },
    deleteExposure: ({ params, expect }) => registry.unexpose(params, OWNER, { expect }),

    listSelectors: ({ query }) => page<Owned<SelectorExposure>>(query, 'selector', named),
    getSelector: ({ params: { selector } }) =>
      one<Owned<SelectorExposure>>({ kind: 'selector', name: selector }),
    putSelector: ({ params, body, expect }) => {
      const { selector: name } = params;
      const exposure = { ...body, name: same('name', body.name, name) };
      return written<SelectorExposure>(registry.expose(exposure, OWNER, { expect }));
    },
    deleteSelector: ({ params: { selector }, expect }) =>
      registry.unexpose({ name: selector }, OWNER, { expect }),

    getDesired: ({ query: { owner } }) => {
      const state: DesiredState = owner === undefined ? registry.state : registry.stateOf(owner);
      const { selectors, exposures, ...rest } = state;
      return { ...rest, exposures: [...exposures, ...selectors] };
    },
    putDesired: async ({ body }) => {
      const { sites = [], services = [], exposures = [] } = body;
      const changes = await registry.apply({ sites, services, exposures }, OWNER);
      return {
        sites: sites.length,
        services: services.length,
        exposures: exposures.length,
        ...changes,
      };
    },
  };
}

/** Answers with what was written, also if the record has been changed again since. */
async function written<T extends Spec>(writing: Promise<Spec>): Promise<Versioned<Owned<T>>> {
  return versioned<Owned<T>>({ owner: OWNER, spec: await writing });
}

function versioned<T extends object>(record: DesiredRecord): Versioned<T> {
  return new Versioned(answerOf<T>(record), versionOf(record));
}

function answerOf<T extends object>({ owner, spec }: DesiredRecord): T {
  return { ...spec, owner } as unknown as T;
}

/** @throws {ConfigError} if the body names something else than the path. */
function same(path: string, inBody: string | undefined, inPath: string): string {
  if (inBody === undefined || inBody === inPath) return inPath;
  throw new ConfigError(path, `is "${inBody}", and the path has "${inPath}"`);
}
