/**
 * The operations on the desired state: sites, services and exposures.
 * @module
 */
import * as v from 'valibot';
import { NameText, type Schema } from '../base/schema.ts';
import {
  type DesiredAnswer,
  DesiredAnswerSchema,
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

  readonly getDesired: Operation<{ result: DesiredAnswer }>;
  readonly putDesired: Operation<{ body: DesiredBody; result: DesiredAnswer }>;
}

export const inSite: Schema<SiteParams> = v.strictObject({ site: NameText });
const ofService: Schema<ServiceParams> = v.strictObject({ service: NameText });
const ofExposure: Schema<ExposureParams> = v.strictObject({ site: NameText, service: NameText });
const ofSelector: Schema<SelectorParams> = v.strictObject({ selector: NameText });

const SITES = '/v1/sites';
const SITE = '/v1/sites/{site}';
const SERVICE = '/v1/services/{service}';
const EXPOSURE = '/v1/exposures/{site}/{service}';
const SELECTOR = '/v1/selectors/{selector}';

export const DESIRED_OPERATIONS: DesiredOperations = {
  listSites: {
    method: 'GET',
    path: SITES,
    summary: 'The sites',
    role: 'viewer',
    query: PageQuerySchema,
    result: pageSchema(SiteAnswerSchema),
  },
  getSite: {
    method: 'GET',
    path: SITE,
    summary: 'One site',
    role: 'viewer',
    params: inSite,
    result: SiteAnswerSchema,
    versioned: true,
  },
  putSite: {
    method: 'PUT',
    path: SITE,
    summary: 'Adds a site, or changes it',
    role: 'operator',
    params: inSite,
    body: SiteBodySchema,
    result: SiteAnswerSchema,
    versioned: true,
  },
  deleteSite: {
    method: 'DELETE',
    path: SITE,
    summary: 'Removes a site that no service and no exposure needs',
    role: 'operator',
    params: inSite,
    versioned: true,
  },
  listServices: {
    method: 'GET',
    path: '/v1/services',
    summary: 'The services',
    role: 'viewer',
    query: SiteFilterSchema,
    result: pageSchema(ServiceAnswerSchema),
  },
  getService: {
    method: 'GET',
    path: SERVICE,
    summary: 'One service',
    role: 'viewer',
    params: ofService,
    result: ServiceAnswerSchema,
    versioned: true,
  },
  putService: {
    method: 'PUT',
    path: SERVICE,
    summary: 'Adds a service, or changes it',
    role: 'operator',
    params: ofService,
    body: ServiceBodySchema,
    result: ServiceAnswerSchema,
    versioned: true,
  },
  deleteService: {
    method: 'DELETE',
    path: SERVICE,
    summary: 'Removes a service that no exposure needs',
    role: 'operator',
    params: ofService,
    versioned: true,
  },
  listExposures: {
    method: 'GET',
    path: '/v1/exposures',
    summary: 'The exposures to one site each',
    role: 'viewer',
    query: ExposureFilterSchema,
    result: pageSchema(ExposureAnswerSchema),
  },
  getExposure: {
    method: 'GET',
    path: EXPOSURE,
    summary: 'One exposure to one site',
    role: 'viewer',
    params: ofExposure,
    result: ExposureAnswerSchema,
    versioned: true,
  },
  putExposure: {
    method: 'PUT',
    path: EXPOSURE,
    summary: 'Exposes a service to a site, or changes the exposure',
    role: 'operator',
    params: ofExposure,
    body: ExposureBodySchema,
    result: ExposureAnswerSchema,
    versioned: true,
  },
  deleteExposure: {
    method: 'DELETE',
    path: EXPOSURE,
    summary: 'Ends an exposure to one site',
    role: 'operator',
    params: ofExposure,
    versioned: true,
  },
  listSelectors: {
    method: 'GET',
    path: '/v1/selectors',
    summary: 'The exposures to sites with certain labels',
    role: 'viewer',
    query: PageQuerySchema,
    result: pageSchema(SelectorAnswerSchema),
  },
  getSelector: {
    method: 'GET',
    path: SELECTOR,
    summary: 'One exposure to sites with certain labels',
    role: 'viewer',
    params: ofSelector,
    result: SelectorAnswerSchema,
    versioned: true,
  },
  putSelector: {
    method: 'PUT',
    path: SELECTOR,
    summary: 'Exposes a service to the sites with certain labels, or changes the exposure',
    role: 'operator',
    params: ofSelector,
    body: SelectorBodySchema,
    result: SelectorAnswerSchema,
    versioned: true,
  },
  deleteSelector: {
    method: 'DELETE',
    path: SELECTOR,
    summary: 'Ends an exposure to sites with certain labels',
    role: 'operator',
    params: ofSelector,
    versioned: true,
  },
  getDesired: {
    method: 'GET',
    path: '/v1/desired',
    summary: 'The whole desired state',
    role: 'viewer',
    result: DesiredAnswerSchema,
  },
  putDesired: {
    method: 'PUT',
    path: '/v1/desired',
    summary: 'Replaces all sites, services and exposures that were set through this interface',
    role: 'operator',
    body: DesiredBodySchema,
    result: DesiredAnswerSchema,
  },
};
