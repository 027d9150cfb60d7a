/**
 * The desired state: sites, services and exposures, with their checks and their changes.
 * @module
 */
export {
  CLOUD,
  type DesiredInput,
  type DesiredState,
  type Exposure,
  type ExposureInput,
  type ExposureKey,
  type ExposureTerms,
  type ExposureTermsInput,
  exposureName,
  type Labels,
  nameWithin,
  type Owner,
  presenceFamily,
  type SelectorExposure,
  type SelectorExposureInput,
  type Service,
  type ServiceBinding,
  type ServiceInput,
  type Site,
  type SiteInput,
} from './model.ts';
export { Registry, type RegistryEvents, type RegistryOptions } from './registry.ts';
export { type DesiredSource, type ExposureId, exposureId, type Touched } from './source.ts';
