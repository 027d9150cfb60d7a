/**
 * The operations on the desired state: sites, services and exposures.
 * @module
 */
import * as v from 'valibot';
import { NameText, type Schema } from '../base/schema.ts';
import {
  type DesiredAnswer,
  DesiredAnswerSchema,
  type DesiredChangeAnswer,
  DesiredChangeAnswerSchema,
  type ExposureAnswer,
  ExposureAnswerSchema,
  type Page,
  pageSchema,
  type SelectorAnswer,
  SelectorAnswerSchema,
  type ServiceAnswer,
  ServiceAnswerSchema,
  type SiteAnswer,
  SiteAnswerSchema,
} from './answers.ts';
import {
  type DesiredBody,
  DesiredBodySchema,
  DesiredFrameSchema,
  type ExposureBody,
  ExposureBodySchema,
  type SelectorBody,
  SelectorBodySchema,
  type ServiceBody,
  ServiceBodySchema,
  type SiteBody,
  SiteBodySchema,
} from './bodies.ts';
import type { Operation } from './operation.ts';
import {
  type ExposureFilter,
  ExposureFilterSchema,
  type OwnerFilter,
  OwnerFilterSchema,
  type PageQuery,
  PageQuerySchema,
  type SiteFilter,
  SiteFilterSchema,
} from './page.ts';

/** Names a site in the path. */
export interface SiteParams {
  readonly site: string;
}

/** Names a service in the path. */
export interface ServiceParams {
  readonly service: string;
}

/** Names an exposure to one site in the path. */
export interface ExposureParams extends SiteParams, ServiceParams {}

/** Names an exposure with a selector in the path. */
export interface SelectorParams {
  readonly selector: string;
}

export interface DesiredOperations {
  readonly listSites: Operation<{ query: PageQuery; result: Page<SiteAnswer> }>;
  readonly getSite: Operation<{ params: SiteParams; result: SiteAnswer }>;
  readonly putSite: Operation<{ params: SiteParams; body: SiteBody; result: SiteAnswer }>;
  readonly deleteSite: Operation<{ params: SiteParams }>;

  readonly listServices: Operation<{ query: SiteFilter; result: Page<ServiceAnswer> }>;
  readonly getService: Operation<{ params: ServiceParams; result: ServiceAnswer }>;
  readonly putService: Operation<{
    params: ServiceParams;
    body: ServiceBody;
    result: ServiceAnswer;
  }>;
  readonly deleteService: Operation<{ params: ServiceParams }>;

  readonly listExposures: Operation<{ query: ExposureFilter; result: Page<ExposureAnswer> }>;
  readonly getExposure: Operation<{ params: ExposureParams; result: ExposureAnswer }>;
  readonly putExposure: Operation<{
    params: ExposureParams;
    body: ExposureBody;
    result: ExposureAnswer;
  }>;
  readonly deleteExposure: Operation<{ params: ExposureParams }>;

  readonly listSelectors: Operation<{ query: PageQuery; result: Page<SelectorAnswer> }>;
  readonly getSelector: Operation<{ params: SelectorParams; result: SelectorAnswer }>;
  readonly putSelector: Operation<{
    params: SelectorParams;
    body: SelectorBody;
    result: SelectorAnswer;
  }>;
  readonly deleteSelector: Operation<{ params: SelectorParams }>;

  readonly getDesired: Operation<{ query: OwnerFilter; result: DesiredAnswer }>;
  readonly putDesired: Operation<{ body: DesiredBody; result: DesiredChangeAnswer }>;
}

export const inSite: Schema<SiteParams> = v.strictObject({ site: NameText });
const ofService: Schema<ServiceParams> = v.strictObject({ service: NameText });
const ofExposure: Schema<ExposureParams> = v.strictObject({ site: NameText, service: NameText });
const ofSelector: Schema<SelectorParams> = v.strictObject({ selector: NameText });

/** One kind of record. */
interface RecordKind<P extends object, Q extends object, B, R> {
  /** The path of the list. */
  readonly list: `/${string}`;
  /** The path of one record. */
  readonly one: `/${string}`;
  readonly params: Schema<P>;
  readonly query: Schema<Q>;
  readonly body: Schema<B>;
  readonly answer: Schema<R>;
  readonly summaries: Readonly<Record<'list' | 'get' | 'put' | 'delete', string>>;
}

/** The operations that each kind of record has. */
interface RecordOperations<P extends object, Q extends object, B, R> {
  readonly list: Operation<{ query: Q; result: Page<R> }>;
  readonly get: Operation<{ params: P; result: R }>;
  readonly put: Operation<{ params: P; body: B; result: R }>;
  readonly delete: Operation<{ params: P }>;
}

function operationsOf<P extends object, Q extends object, B, R>({
  list,
  one: path,
  params,
  query,
  body,
  answer: result,
  summaries,
}: RecordKind<P, Q, B, R>): RecordOperations<P, Q, B, R> {
  const record = { path, params, versioned: true } as const;
  return {
    list: {
      method: 'GET',
      path: list,
      summary: summaries.list,
      role: 'viewer',
      query,
      result: pageSchema(result),
    },
    get: { ...record, method: 'GET', summary: summaries.get, role: 'viewer', result },
    put: { ...record, method: 'PUT', summary: summaries.put, role: 'operator', body, result },
    delete: { ...record, method: 'DELETE', summary: summaries.delete, role: 'operator' },
  };
}

const sites = operationsOf({
  list: '/v1/sites',
  one: '/v1/sites/{site}',
  params: inSite,
  query: PageQuerySchema,
  body: SiteBodySchema,
  answer: SiteAnswerSchema,
  summaries: {
    list: 'The sites',
    get: 'One site',
    put: 'Adds a site, or changes it',
    delete: 'Removes a site that no service and no exposure needs',
  },
});
const services = operationsOf({
  list: '/v1/services',
  one: '/v1/services/{service}',
  params: ofService,
  query: SiteFilterSchema,
  body: ServiceBodySchema,
  answer: ServiceAnswerSchema,
  summaries: {
    list: 'The services',
    get: 'One service',
    put: 'Adds a service, or changes it',
    delete: 'Removes a service that no exposure needs',
  },
});
const exposures = operationsOf({
  list: '/v1/exposures',
  one: '/v1/exposures/{site}/{service}',
  params: ofExposure,
  query: ExposureFilterSchema,
  body: ExposureBodySchema,
  answer: ExposureAnswerSchema,
  summaries: {
    list: 'The exposures to one site each',
    get: 'One exposure to one site',
    put: 'Exposes a service to a site, or changes the exposure',
    delete: 'Ends an exposure to one site',
  },
});
const selectors = operationsOf({
  list: '/v1/selectors',
  one: '/v1/selectors/{selector}',
  params: ofSelector,
  query: PageQuerySchema,
  body: SelectorBodySchema,
  answer: SelectorAnswerSchema,
  summaries: {
    list: 'The exposures to sites with certain labels',
    get: 'One exposure to sites with certain labels',
    put: 'Exposes a service to the sites with certain labels, or changes the exposure',
    delete: 'Ends an exposure to sites with certain labels',
  },
});

export const DESIRED_OPERATIONS: DesiredOperations = {
  listSites: sites.list,
  getSite: sites.get,
  putSite: sites.put,
  deleteSite: sites.delete,
  listServices: services.list,
  getService: services.get,
  putService: services.put,
  deleteService: services.delete,
  listExposures: exposures.list,
  getExposure: exposures.get,
  putExposure: exposures.put,
  deleteExposure: exposures.delete,
  listSelectors: selectors.list,
  getSelector: selectors.get,
  putSelector: selectors.put,
  deleteSelector: selectors.delete,
  getDesired: {
    method: 'GET',
    path: '/v1/desired',
    summary: 'The whole desired state, or what one owner keeps of it',
    role: 'viewer',
    query: OwnerFilterSchema,
    result: DesiredAnswerSchema,
  },
  putDesired: {
    method: 'PUT',
    path: '/v1/desired',
    summary: 'Replaces all sites, services and exposures that were set through this interface',
    role: 'operator',
    body: DesiredBodySchema,
    frame: DesiredFrameSchema,
    result: DesiredChangeAnswerSchema,
  },
};
