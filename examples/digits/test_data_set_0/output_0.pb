
BprobabilitiesJ(í‡C:@×E6NÎ?²Ì7÷Ç-HÏÔ3å9Z.Bn4ÖØ«5(Sœ1