
BprobabilitiesJ(ƒs¸=RCì=r¾=‹RÀ=ƒo·=uë=¥®¯=”œÂ=5m×=%Xð=